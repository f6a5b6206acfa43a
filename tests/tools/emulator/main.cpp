// Runs cases and prints a line for each: its name, the seed and what became of it.
//
//   cases right 0 1 2          all right cases, in these orders
//   cases faulty:NAME 0        one case
#include <cstdlib>
#include <iostream>

#include "cases.h"

int main(int count, char** arguments) {
  const std::string which = count > 1 ? arguments[1] : "right";
  const size_t colon = which.find(':');
  const std::string name = colon == std::string::npos ? "" : which.substr(colon + 1);
#if defined(__CUDACC__)
  const std::vector<Case>& cases = right_cases;
#else
  const std::vector<Case>& cases = which.substr(0, colon) == "right" ? right_cases : faulty_cases;
#endif
  bool right = true;
  for (int i = 2; i < count || i == 2; ++i) {
    const unsigned long long seed = i < count ? std::strtoull(arguments[i], nullptr, 10) : 0;
#if !defined(__CUDACC__)
    pydl::emulator::set_order(seed);
#endif
    for (const Case& each : cases) {
      if (!name.empty() && name != each.name) continue;
      std::cout << each.name << ' ' << seed << ' ' << std::flush;
      try {
        each.run();
        std::cout << "right" << std::endl;
      } catch (const Wrong& error) {
        right = false;
        std::cout << "wrong: " << error.what() << std::endl;
      } catch (const std::exception& error) {
        right = false;
        std::cout << "fault: " << error.what() << std::endl;
      }
    }
  }
  return right ? EXIT_SUCCESS : EXIT_FAILURE;
}
