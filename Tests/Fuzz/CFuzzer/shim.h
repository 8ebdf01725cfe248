// libFuzzer has no header: its documentation declares this for programs with a main of their own.
// Only a build with -sanitize=fuzzer has it.
#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerRunDriver(int *argc, char ***argv, int (*take)(const uint8_t *data, size_t size));
