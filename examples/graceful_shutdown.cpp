// A program that runs until SIGINT or SIGTERM and then delivers what it has accepted. Here it sends the signal to
// itself, so that it ends.
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <string>
#include <thread>
#include <vector>

#include "shard/pipeline.hpp"

int main() {
  using namespace std::chrono_literals;
  // Blocked before any thread is started, for they inherit it: then the signal waits for sigwait(), interrupts nobody,
  // and what it makes the program do is done by an ordinary thread, where everything is allowed.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  std::atomic<std::uint64_t> delivered{0};
  shard::Pipeline pipeline{{.manager = {.backpressure = shard::Backpressure::block(1s)}},
                           [&](const shard::Batch& batch) { delivered += batch.size(); }};

  std::atomic<std::uint64_t> accepted{0};
  std::vector<std::jthread> producers;
  for (int p = 0; p < 2; ++p) {
    producers.emplace_back([&, p](const std::stop_token& stop) {
      for (std::uint64_t i = 0; !stop.stop_requested(); ++i) {
        if (pipeline.ingest(std::to_string(i)) == shard::Outcome::accepted) ++accepted;
        if (p == 0 && i == 50'000) ::kill(::getpid(), SIGTERM);  // instead of an operator
      }
    });
  }

  int signal = 0;
  sigwait(&signals, &signal);
  std::cout << "signal " << signal << " after " << accepted << " events\n";

  // Sources first. Without this close() would refuse what they still offer, and count it as rejected_closed.
  for (auto& producer : producers) producer.request_stop();
  producers.clear();
  const auto report = pipeline.close(10s);

  std::cout << to_string(report);
  const auto& ledger = report.ledger;
  const bool graceful = report.complete && ledger.balanced() && ledger.accepted == accepted &&
                        ledger.delivered == accepted && delivered == accepted &&
                        ledger.rejected_closed == 0;
  std::cout << (graceful ? "everything that was accepted was delivered\n" : "NOT GRACEFUL\n");
  return graceful ? EXIT_SUCCESS : EXIT_FAILURE;
}
