#include "semihosting.h"

enum { OPEN = 0x01, CLOSE = 0x02, PRINT = 0x04, WRITE = 0x05, EXIT_EXTENDED = 0x20 };
enum { OPEN_FOR_WRITING = 5, APPLICATION_EXIT = 0x20026 };

static int call(int operation, const void *arguments)
{
    register int r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = arguments;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

void semihosting_print(const char *text)
{
    call(PRINT, text);
}

void semihosting_print_number(uint32_t number)
{
    char text[11];
    int at = sizeof text - 1;
    text[at] = 0;
    do
        text[--at] = (char)('0' + number % 10);
    while (number /= 10);
    semihosting_print(text + at);
}

void semihosting_exit(int status)
{
    const uint32_t arguments[2] = {APPLICATION_EXIT, (uint32_t)status};
    call(EXIT_EXTENDED, arguments);
}

int semihosting_write(const char *name, const void *bytes, uint32_t size)
{
    uint32_t length = 0;
    while (name[length])
        length++;
    const uint32_t open[3] = {(uint32_t)(uintptr_t)name, OPEN_FOR_WRITING, length};
    const int file = call(OPEN, open);
    if (file < 0)
        return 1;
    const uint32_t write[3] = {(uint32_t)file, (uint32_t)(uintptr_t)bytes, size};
    const int missing = call(WRITE, write);
    const uint32_t close[1] = {(uint32_t)file};
    return call(CLOSE, close) != 0 || missing != 0;
}
