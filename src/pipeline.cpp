// The instantiation of the pipeline for the machine, so that hosts do not compile it again.

#include "shard/pipeline.hpp"

#include "shard/detail/pipeline_core_impl.hpp"

namespace shard {

template class SHARD_EXPORT detail::Courier<detail::SystemPlatform>;
template class SHARD_EXPORT detail::PipelineCore<detail::SystemPlatform>;
template class SHARD_EXPORT BasicPipeline<detail::SystemPlatform>;

}  // namespace shard
