#include "report.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <string_view>

#include "shard/json.hpp"

namespace ingest {

namespace {

using std::chrono::nanoseconds;

template <class... Args>
std::string format(const char* pattern, Args... args) {
  std::array<char, 64> text{};
  const auto size = std::snprintf(text.data(), text.size(), pattern, args...);
  return {text.data(), static_cast<std::size_t>(std::clamp(size, 0, 63))};
}

double seconds(nanoseconds time) { return std::chrono::duration<double>(time).count(); }

double rate(std::uint64_t count, nanoseconds time) {
  return time.count() > 0 ? static_cast<double>(count) / seconds(time) : 0.0;
}

std::string megabytes_a_second(std::uint64_t bytes, nanoseconds time) {
  return format("%.1f MB/s", rate(bytes, time) / 1e6);
}

/// A row of the table.
void row(std::string& text, std::string_view name, const std::string& value) {
  text.append("  ").append(name).append(21 - std::min<std::size_t>(name.size(), 20), ' ');
  text.append(14 - std::min<std::size_t>(value.size(), 14), ' ').append(value).append("\n");
}
void row(std::string& text, std::string_view name, std::uint64_t count) {
  row(text, name, grouped(count));
}

struct Count {
  std::string_view name;
  std::uint64_t value;
};

/// Where the records ended that were not delivered.
std::vector<Count> losses(const ReadCounts& read, const shard::Ledger& ledger) {
  return {
      {"rejected", read.rejected},
      {"read too late", read.gone},
      {"dropped when full", ledger.dropped_newest + ledger.sampled_out + ledger.evicted},
      {"refused when full", ledger.rejected_full + ledger.rejected_timeout},
      {"unrouted", ledger.unrouted},
      {"given up by the sink", ledger.dead_lettered},
      {"possibly delivered", ledger.possibly_delivered},
      {"not delivered",
       ledger.abandoned_queued + ledger.abandoned_batched + ledger.queued + ledger.batched},
  };
}

}  // namespace

bool has_losses(const ReadCounts& read, const shard::Ledger& ledger) noexcept {
  const auto all = losses(read, ledger);
  return std::any_of(all.begin(), all.end(), [](const Count& count) { return count.value != 0; });
}

std::string grouped(std::uint64_t number) {
  auto digits = std::to_string(number);
  for (auto at = digits.size(); at > 3;) digits.insert(at -= 3, 1, ',');
  return digits;
}

std::string short_time(nanoseconds time) {
  constexpr std::array<std::pair<double, const char*>, 4> kUnits{
      {{1.0, "s"}, {1e-3, "ms"}, {1e-6, "us"}, {1e-9, "ns"}}};
  const auto value = seconds(time);
  for (const auto& [size, unit] : kUnits) {
    const auto scaled = value / size;
    if (scaled >= 0.9995 || size == 1e-9) {  // what would be rounded to 1000 has the next unit
      return format(scaled < 9.95 ? "%.1f %s" : "%.0f %s", scaled, unit);
    }
  }
  return {};
}

std::string to_text(const Report& report) {
  const auto& ledger = report.stats.ledger;
  std::string text =
      grouped(report.read.records) + (report.read.records == 1 ? " record" : " records");
  text += " of " + grouped(report.files) + (report.files == 1 ? " input" : " inputs") + " to " +
          report.to + " in " + short_time(report.took) + ": " +
          grouped(static_cast<std::uint64_t>(rate(report.read.records, report.took))) + "/s, " +
          megabytes_a_second(report.read.bytes, report.took) + "\n\n";

  row(text, "read", report.read.records);
  row(text, "delivered", ledger.delivered);
  for (const auto& [name, value] : losses(report.read, ledger)) {
    if (value != 0) row(text, name, value);
  }
  if (report.read.unread != 0) row(text, "not taken in", report.read.unread);
  if (report.read.blank != 0) row(text, "blank lines", report.read.blank);
  if (!report.sink.empty()) text += "\n";
  for (const auto& [name, value] : report.sink.items()) row(text, name, value.get<std::uint64_t>());

  text += "\n";
  row(text, "batches", report.stats.batches);
  if (report.stats.batches != 0) {
    row(text, "  mean size", ledger.delivered / report.stats.batches);
    row(text, "  largest", report.largest_batch);
    row(text, "retries", report.stats.retries);
    row(text, "latency p50", short_time(report.stats.latency.quantile(0.5)));
    row(text, "latency p99", short_time(report.stats.latency.quantile(0.99)));
    row(text, "latency max", short_time(report.stats.latency.longest()));
  }
  if (report.shards.size() == 1) row(text, "shards", report.shards.front().second);
  if (report.shards.size() > 1) {
    std::string history;
    for (const auto& [since, count] : report.shards) {
      history.append(history.empty() ? "  shards over time     " : ", ");
      history.append(std::to_string(count) + " at " + short_time(since));
    }
    text += history + "\n";
  }

  if (!report.first_rejects.empty()) text += "\nFirst of those rejected or refused:\n";
  for (const auto& reject : report.first_rejects) text += "  " + reject + "\n";
  for (const auto& problem : report.problems) text += "\n" + problem + "\n";
  return text;
}

nlohmann::ordered_json to_json(const Report& report) {
  const auto& ledger = report.stats.ledger;
  nlohmann::ordered_json shards = nlohmann::ordered_json::array();
  for (const auto& [since, count] : report.shards) {
    shards.push_back({{"since_ns", since.count()}, {"shards", count}});
  }
  const auto& latency = report.stats.latency;
  nlohmann::json counts = ledger;
  return {
      {"to", report.to},
      {"inputs", report.files},
      {"took_ns", report.took.count()},
      {"read",
       {{"records", report.read.records},
        {"bytes", report.read.bytes},
        {"blank", report.read.blank},
        {"rejected", report.read.rejected},
        {"not_taken_in", report.read.unread + report.read.gone}}},
      {"records_per_second", rate(report.read.records, report.took)},
      {"ledger", counts},
      {"balanced", ledger.balanced()},
      {"sink", report.sink},
      {"batches",
       {{"count", report.stats.batches},
        {"mean", report.stats.batches != 0 ? ledger.delivered / report.stats.batches : 0},
        {"largest", report.largest_batch},
        {"attempts", report.stats.attempts},
        {"retries", report.stats.retries}}},
      {"latency",
       {{"p50_ns", latency.quantile(0.5).count()},
        {"p99_ns", latency.quantile(0.99).count()},
        {"max_ns", latency.longest().count()}}},
      {"shards", shards},
      {"signal", report.signal ? nlohmann::ordered_json(*report.signal) : nlohmann::ordered_json()},
      {"problems", report.problems},
      {"exit_status", report.status},
  };
}

std::string to_text(const Progress& progress) {
  std::string text;
  const auto since = progress.since_start;
  if (progress.total && *progress.total != 0) {
    const auto done = std::min(
        1.0, static_cast<double>(progress.read.bytes) / static_cast<double>(*progress.total));
    text += format("%3.0f %%  ", 100 * done);
    const auto left = done > 0 ? seconds(since) * (1 / done - 1) : 0.0;
    text +=
        "ETA " +
        short_time(std::chrono::duration_cast<nanoseconds>(std::chrono::duration<double>(left))) +
        "  ";
  }
  text += grouped(progress.ledger.delivered) + " delivered  ";
  text += grouped(static_cast<std::uint64_t>(rate(progress.ledger.delivered, since))) + "/s  ";
  text += format("fill %.0f %%  ", 100 * progress.fill);
  text += std::to_string(progress.shards) + (progress.shards == 1 ? " shard" : " shards");
  std::uint64_t lost = 0;
  for (const auto& [name, value] : losses(progress.read, progress.ledger)) {
    if (name != "not delivered") lost += value;
  }
  if (lost != 0) text += "  " + grouped(lost) + " lost or rejected";
  return text;
}

}  // namespace ingest
