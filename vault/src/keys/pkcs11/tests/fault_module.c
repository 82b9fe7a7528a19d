/* A PKCS#11 module that puts faults before another one.
 *
 * CLAVIGER_FAULT_MODULE names the real module, CLAVIGER_FAULT_DIR a directory of files that steer this one at any time:
 *   hang        while it exists, calls do not return
 *   fail        while it exists, calls return the code in it (hexadecimal)
 *   latency-ms  while it exists, calls take so long (decimal)
 *   calls       one line for each call, written by this module
 *
 * Build: cc -shared -fPIC -o fault_module.so fault_module.c -ldl
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef unsigned long word;
typedef word (*call)(word, word, word, word, word, word);

/* CK_FUNCTION_LIST: a version of two bytes, then 68 pointers. */
struct functions {
    unsigned char version[2];
    call call[68];
};

static struct functions *real, ours;

static FILE *file(const char *name, const char *mode) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", getenv("CLAVIGER_FAULT_DIR"), name);
    return fopen(path, mode);
}

static int number(const char *name, const char *format, word *value) {
    FILE *stream = file(name, "r");
    if (!stream) return 0;
    int found = fscanf(stream, format, value) == 1;
    fclose(stream);
    return found;
}

static word before(const char *name) {
    word value;
    FILE *stream = file("calls", "a");
    if (stream) {
        fprintf(stream, "%s\n", name);
        fclose(stream);
    }
    if (number("latency-ms", "%lu", &value)) usleep(value * 1000);
    while ((stream = file("hang", "r"))) {
        fclose(stream);
        usleep(5000);
    }
    return number("fail", "%lx", &value) ? value : 0;
}

#define FAULTY(name, index)                                              \
    static word name(word a, word b, word c, word d, word e, word f) {   \
        word fault = before(#name);                                      \
        return fault ? fault : real->call[index](a, b, c, d, e, f);      \
    }

FAULTY(GetTokenInfo, 6)
FAULTY(OpenSession, 12)
FAULTY(CloseSession, 13)
FAULTY(Login, 18)
FAULTY(FindObjectsInit, 26)
FAULTY(EncryptInit, 29)
FAULTY(DecryptInit, 33)
FAULTY(SignInit, 42)
FAULTY(GenerateKey, 58)

word C_GetFunctionList(struct functions **list) {
    if (!real) {
        void *module = dlopen(getenv("CLAVIGER_FAULT_MODULE"), RTLD_NOW | RTLD_LOCAL);
        if (!module) return 5;
        word (*get)(struct functions **) = (word (*)(struct functions **))dlsym(module, "C_GetFunctionList");
        if (!get || get(&real)) return 5;
        memcpy(&ours, real, sizeof ours);
        ours.call[6] = GetTokenInfo;
        ours.call[12] = OpenSession;
        ours.call[13] = CloseSession;
        ours.call[18] = Login;
        ours.call[26] = FindObjectsInit;
        ours.call[29] = EncryptInit;
        ours.call[33] = DecryptInit;
        ours.call[42] = SignInit;
        ours.call[58] = GenerateKey;
    }
    *list = &ours;
    return 0;
}
