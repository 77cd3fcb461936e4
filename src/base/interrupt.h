// Ctrl-C as a flag that long work polls, so that destructors run and nothing half-written stays.
#pragma once

#include "base/status.h"

namespace atom {

// Makes SIGINT and SIGTERM set the flag. A signal half a second after the first or later ends the
// process at once; earlier ones are the first's echo: some programs that pass a signal on send it
// to the process and to its group.
void install_interrupt_handler();
bool interrupted();
// Forgets the signal, for programs in which Ctrl-C stops a part of the work only.
void clear_interrupt();
// An error (kCancelled) once a signal has come; poll it between units of work.
Status check_interrupted();

}  // namespace atom
