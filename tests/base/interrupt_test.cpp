#include "base/interrupt.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <thread>

namespace atom {
namespace {

// In a child each, since what a signal does belongs to the whole process.
TEST(InterruptDeathTest, ASignalAndItsEchoAreOneInterruption) {
  EXPECT_EXIT(
      {
        install_interrupt_handler();
        const bool before = interrupted();
        for (const int number : {SIGINT, SIGINT, SIGTERM}) (void)std::raise(number);
        const bool after = interrupted() && check_interrupted().code() == ErrorCode::kCancelled;
        clear_interrupt();
        ::_exit(!before && after && !interrupted() ? 0 : 1);
      },
      ::testing::ExitedWithCode(0), "");
}

TEST(InterruptDeathTest, ALaterSignalEndsTheProcess) {
  EXPECT_EXIT(
      {
        install_interrupt_handler();
        (void)std::raise(SIGINT);
        std::this_thread::sleep_for(std::chrono::milliseconds(600));
        (void)std::raise(SIGINT);
        ::_exit(0);
      },
      ::testing::ExitedWithCode(128 + SIGINT), "");
}

}  // namespace
}  // namespace atom
