#pragma once

#include <chrono>
#include <cstddef>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "support/flow.hpp"
#include "support/results.hpp"
#include "support/rounds.hpp"
#include "support/team.hpp"

namespace bench {

/// How long the consumer of a paced peer rests when it found little, as the pipeline's workers do; that of a peer looks into
/// the queues as often as it can. Chosen from short runs with 5, 20 and 50 us, each a program of its own, so not a careful
/// comparison: 20 and 50 us were close.
inline constexpr auto kRest = std::chrono::microseconds{20};

/// The flows of one case, and the threads that produce for them.
class FlowCase {
 public:
  explicit FlowCase(const Load& load) : load_(load), team_(load.producers) {}

  template <class AnyFlow, class... Args>
  void add(const std::string& name, Role role, const Args&... args) {
    flows_.push_back(std::make_unique<AnyFlow>(load_, args...));
    const auto measure = [this, name, &flow = *flows_.back()] {
      return run_flow(name, flow, team_, load_);
    };
    subjects_.push_back({name, measure});
    roles_.push_back(role);
  }

  /// A queue with a consumer that polls and with one that rests.
  template <class Queue>
  void add_peer(const std::string& name, std::size_t instances, std::size_t capacity) {
    add<QueueFlow<Queue>>(name + "/polls", Role::peer, instances, capacity);
    add<QueueFlow<Queue>>(name + "/rests", Role::paced_peer, instances, capacity, kRest);
  }

  void run(Results& results, const std::string& title, int rounds,
           nlohmann::ordered_json parameters) {
    std::printf("\n%s\n", title.c_str());
    const auto transfers = measure_rounds(subjects_, rounds);
    print_rounds(subjects_,
                 {{"/polling", fastest(Role::peer)}, {"/resting", fastest(Role::paced_peer)}},
                 transfers);
    results.add(case_of(title, subjects_, roles_, transfers, std::move(parameters)));
  }

 private:
  [[nodiscard]] const Subject* fastest(Role role) const {
    const Subject* best = nullptr;
    for (std::size_t i = 0; i < subjects_.size(); ++i) {
      if (roles_[i] == role && (best == nullptr || subjects_[i].median() < best->median())) {
        best = &subjects_[i];
      }
    }
    return best;
  }

  Load load_;
  Team team_;
  std::vector<std::unique_ptr<Flow>> flows_;
  std::vector<Subject> subjects_;
  std::vector<Role> roles_;  ///< of the subjects
};

}  // namespace bench
