/* What an emulator or a debugger does for the program: text and files on the host, and the end. */

#ifndef SEMIHOSTING_H
#define SEMIHOSTING_H

#include <stdint.h>

void semihosting_print(const char *text);
void semihosting_print_number(uint32_t number);
void semihosting_exit(int status);

/* Write `size` bytes to the file `name` on the host; 0 when all of them arrived. */
int semihosting_write(const char *name, const void *bytes, uint32_t size);

#endif
