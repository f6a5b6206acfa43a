#pragma once

namespace pydl::emulator {

// Whether launches do nothing from now on: for measuring what comes before them.
void set_idle(bool idle);

}  // namespace pydl::emulator
