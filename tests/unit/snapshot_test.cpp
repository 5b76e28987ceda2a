// One thread and its cells: what it keeps, and when what was replaced is destroyed.

#include "shard/detail/snapshot.hpp"

#include <catch2/catch.hpp>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <utility>
#include <vector>

#include "shard/detail/platform.hpp"

namespace {

struct Value {
  std::uint64_t version;
};
using Cell = shard::detail::SnapshotCell<shard::detail::SystemPlatform, Value>;

std::shared_ptr<const Value> value(std::uint64_t version) {
  return std::make_shared<const Value>(Value{version});
}

/// Publishes a value; where it can be seen whether it still exists.
std::weak_ptr<const Value> publish(Cell& cell, std::uint64_t version) {
  auto next = value(version);
  std::weak_ptr<const Value> watched = next;
  cell.prepare_to_publish();
  cell.publish(std::move(next));
  return watched;
}

}  // namespace

TEST_CASE("a thread has the current value cached from when it has asked until it is replaced",
          "[R-D2]") {
  Cell cell(value(1));
  CHECK(cell.cached() == nullptr);
  CHECK(cell.peek()->version == 1);
  CHECK(cell.cached() == nullptr);
  const auto first = cell.current();
  CHECK(cell.cached() == first.get());
  CHECK(cell.read()->version == 1);

  publish(cell, 2);
  CHECK(cell.version() == 2);
  CHECK(cell.cached() == nullptr);
  CHECK(cell.read()->version == 2);
  CHECK(cell.cached() == cell.peek().get());
  CHECK(first->version == 1);
}

TEST_CASE("a value that was replaced lives as long as a thread has it cached, and no longer",
          "[R-D2]") {
  auto made = value(1);
  const std::weak_ptr<const Value> first = made;
  Cell cell(std::move(made), value(1));
  CHECK(cell.read()->version == 1);
  const auto second = publish(cell, 2);
  CHECK(first.use_count() == 2);  // this thread's, and the cell's
  CHECK(cell.read()->version == 2);
  CHECK(first.use_count() == 1);
  const auto third = publish(cell, 3);
  CHECK(first.expired());
  CHECK(second.use_count() == 2);
  const auto fourth = publish(cell, 4);  // nobody had the third
  CHECK(third.expired());
  CHECK(second.use_count() == 2);
  CHECK(fourth.use_count() == 1);
  CHECK(cell.read()->version == 4);
  publish(cell, 5);
  CHECK(second.expired());
  CHECK_FALSE(fourth.expired());
}

TEST_CASE("a thread keeps as many cells apart as it has slots", "[R-D2]") {
  std::deque<Cell> cells;
  std::vector<const Value*> values;
  for (std::size_t i = 0; i < shard::detail::kSnapshotSlots; ++i) {
    const auto first = value(i + 1);
    values.push_back(first.get());
    cells.emplace_back(first);
    CHECK(cells.back().read()->version == i + 1);
  }
  for (std::size_t i = 0; i < cells.size(); ++i) CHECK(cells[i].cached() == values[i]);
  Cell another(value(9));  // shares a slot with the first
  CHECK(another.cached() == nullptr);
  CHECK(another.read()->version == 9);
  CHECK(cells[0].cached() == nullptr);
  CHECK(cells[1].cached() == values[1]);
  CHECK(cells[0].read()->version == 1);
  CHECK(another.cached() == nullptr);
}
