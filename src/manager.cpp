// The instantiation of the manager for the machine, so that hosts do not compile it again.

#include "shard/detail/manager_impl.hpp"

namespace shard {

template class SHARD_EXPORT detail::ShardCore<detail::SystemPlatform>;
template class SHARD_EXPORT detail::Scaler<detail::SystemPlatform>;
template class SHARD_EXPORT detail::Topology<detail::SystemPlatform>;
template class SHARD_EXPORT detail::ManagerCore<detail::SystemPlatform>;
template class SHARD_EXPORT BasicManager<detail::SystemPlatform>;

}  // namespace shard
