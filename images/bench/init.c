/* First process of the benchmark initramfs, and its counted workloads. No C library: what is measured up to the marker
 * is the kernel alone, and the instruction count of the loop is known from the text below. */

typedef unsigned long u64;
typedef long s64;

enum { SYS_write = 1, SYS_open = 2, SYS_pread64 = 17, SYS_execve = 59, SYS_exit = 60, SYS_reboot = 169 };
enum { O_DIRECT = 0x4000 };

static s64 call4(s64 number, u64 a, u64 b, u64 c, u64 d) {
    s64 result;
    register u64 r10 __asm__("r10") = d;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10)
                     : "rcx", "r11", "memory");
    return result;
}

static u64 length(const char *text) {
    u64 n = 0;
    while (text[n]) n++;
    return n;
}

static void print(const char *text) { call4(SYS_write, 1, (u64)text, length(text), 0); }

static int starts_with(const char *text, const char *prefix) {
    while (*prefix)
        if (*text++ != *prefix++) return 0;
    return 1;
}

/* A billion instructions: 10 a round, of the kinds that integer code has (ALU, shift, address, load, store, compare,
 * one multiplication, one taken and one never taken branch). */
static void integer_loop(void) {
    u64 rounds = 100000000, accumulator = 1, cell = 0;
    __asm__ volatile("1:\n\t"
                     "add %[r], %[a]\n\t"
                     "mov %[a], %[m]\n\t"
                     "imul $13, %[a], %%rcx\n\t"
                     "shr $7, %%rcx\n\t"
                     "xor %%rcx, %[a]\n\t"
                     "lea 3(%[a], %%rcx), %[a]\n\t"
                     "test %[r], %[r]\n\t"
                     "js 2f\n\t"
                     "dec %[r]\n\t"
                     "jnz 1b\n\t"
                     "2:\n\t"
                     : [r] "+r"(rounds), [a] "+r"(accumulator), [m] "+m"(cell)
                     :
                     : "rcx", "cc");
    (void)cell;
}

static char block[4096] __attribute__((aligned(4096)));

/* Reads 4 KiB blocks at random offsets of the first 32 MiB, past the page cache. */
static int random_reads(const char *device) {
    s64 fd = call4(SYS_open, (u64)device, O_DIRECT, 0, 0);
    if (fd < 0) return 1;
    u64 seed = 88172645463325252ul;
    for (int n = 0; n < 8192; n++) {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        if (call4(SYS_pread64, (u64)fd, (u64)block, sizeof block, (seed % 8192) * 4096) != (s64)sizeof block) return 1;
    }
    return 0;
}

__attribute__((used)) static void start(u64 *stack) {
    u64 count = stack[0];
    char **arguments = (char **)(stack + 1);
    char **environment = arguments + count + 1;
    if (count > 1 && starts_with(arguments[1], "intloop")) {
        integer_loop();
        call4(SYS_exit, 0, 0, 0, 0);
    }
    if (count > 2 && starts_with(arguments[1], "randread")) call4(SYS_exit, (u64)random_reads(arguments[2]), 0, 0, 0);

    print("FERROVIRT-INIT\n");
    for (char **entry = environment; *entry; entry++) {
        if (starts_with(*entry, "bench=")) { /* the kernel hands unknown key=value words to init as environment */
            char *shell[] = {"sh", "/run.sh", 0};
            call4(SYS_execve, (u64) "/bin/busybox", (u64)shell, (u64)environment, 0);
            print("FERROVIRT-ERROR no busybox\n");
        }
    }
    call4(SYS_reboot, 0xfee1dead, 672274793, 0x4321fedc, 0); /* LINUX_REBOOT_CMD_POWER_OFF */
    for (;;) call4(SYS_exit, 0, 0, 0, 0);
}

__asm__(".globl _start\n_start:\n\txor %ebp, %ebp\n\tmov %rsp, %rdi\n\tand $-16, %rsp\n\tcall start\n");
