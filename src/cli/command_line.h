// The program from its arguments to its exit code.
#pragma once

namespace atom::cli {

// Exit codes: 0 done; 1 the machine or the program failed (disk full, out of memory); 2 the input
// or the command line is wrong; 130 interrupted by Ctrl-C. Results go to stdout, all else to
// stderr; an error is one line, "atom: <message>".
int run_command_line(int argc, char** argv);

}  // namespace atom::cli
