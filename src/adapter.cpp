#include "shard/adapter.hpp"

namespace shard {

Adapter::~Adapter() = default;

bool Adapter::flush(const DeliveryContext& /*context*/) { return true; }

void Adapter::close(const DeliveryContext& /*context*/) {}

std::string_view Adapter::name() const noexcept { return "adapter"; }

}  // namespace shard
