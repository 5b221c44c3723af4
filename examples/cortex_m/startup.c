/* What runs before main on a Cortex-M without any library: the vector table, the floating-point
 * unit, and the memory that C expects to find initialised. */

#include <stdint.h>

extern uint32_t stack_top, data_start, data_end, data_source, bss_start, bss_end;
int main(void);
void semihosting_exit(int status);

__attribute__((noreturn)) void reset_handler(void)
{
    /* Full access to coprocessors 10 and 11, which are the floating-point and vector unit. */
    *(volatile uint32_t *)0xE000ED88 |= 0xFu << 20;
    __asm__ volatile("dsb\n\tisb");
    /* volatile: the compiler must not turn the loops into calls of memcpy and memset */
    volatile uint32_t *to = &data_start;
    for (const volatile uint32_t *from = &data_source; to < &data_end;)
        *to++ = *from++;
    for (to = &bss_start; to < &bss_end;)
        *to++ = 0;
    semihosting_exit(main());
    for (;;) {
    }
}

static void fault_handler(void)
{
    semihosting_exit(70);
    for (;;) {
    }
}

__attribute__((section(".vectors"), used)) static const void *const vectors[16] = {
    &stack_top,    reset_handler, fault_handler, fault_handler,
    fault_handler, fault_handler, fault_handler, fault_handler,
};
