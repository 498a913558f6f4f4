/* Validation by a fixed window of trust, in C without a library: what a policy needs at least.
 *
 * The gateway calls `check` with sixteen whole numbers and takes one number back: wit/validation.wit says what each is. A function of
 * numbers needs no binding generator, no memory and no allocator. As it exports no `lifecycle`, it takes no configuration:
 * the window is fixed when it is compiled, with -DWINDOW_MS=2000.
 *
 * Checkout: pass within the window, else ping. Return and creation: pass; roll back what is open, reset what is unknown.
 * After an error: discard what cannot live, ping the rest. */

#include <stdbool.h>
#include <stdint.h>

#ifndef WINDOW_MS
#define WINDOW_MS 1000
#endif

#ifdef __wasm__
#define EXPORT(name) __attribute__((export_name(name)))
#else
#define EXPORT(name) /* the tests run natively */
#endif

enum trigger { CHECKOUT = 0, RETURN = 1, ERROR = 2, CREATED = 3 };
enum transaction { IDLE = 0, OPEN = 1, FAILED = 2 };
enum peek { CLEAN = 0, CLOSED = 2 };
enum error { NONE = 0, IO = 1, CONNECTION = 3, AUTHENTICATION = 4, READ_ONLY = 5 };
enum action { PASS = 0, PING = 1, ROLL_BACK = 3, RESET_FULLY = 5, DISCARD = 6 };

/* action + 8 * purge + 16 * timeout + 2^20 * trust; this policy neither purges nor sets a timeout. */
static double verdict(enum action action) {
    double trust = action == DISCARD ? 0 : WINDOW_MS;
    return action + 1048576.0 * trust;
}

static enum action after_error(uint32_t error) {
    bool lost = error == IO || error == CONNECTION || error == AUTHENTICATION || error == READ_ONLY;
    return lost ? DISCARD : PING;
}

static enum action on_return(uint32_t transaction) {
    if (transaction == IDLE)
        return PASS;
    return transaction == OPEN || transaction == FAILED ? ROLL_BACK : RESET_FULLY;
}

EXPORT("sluicegate:policy/validation@0.1.0#check")
double check(uint32_t trigger, uint32_t age_ms, uint32_t idle_ms, uint32_t uses, uint32_t errors,
             uint32_t since_validated_ms, uint32_t last_valid_for_ms, uint32_t recent_bad, uint32_t recent_good,
             uint32_t transaction, uint32_t dirty, uint32_t peek, uint32_t last_error, uint32_t deadline_left_ms,
             uint32_t failed_probes, uint32_t epochs_behind) {
    (void)age_ms, (void)uses, (void)errors, (void)last_valid_for_ms, (void)recent_bad, (void)recent_good;
    (void)dirty, (void)deadline_left_ms;

    if (peek == CLOSED || epochs_behind > 0)
        return verdict(DISCARD);
    if (trigger == ERROR)
        return verdict(after_error(last_error));
    if (trigger == RETURN)
        return verdict(on_return(transaction));
    if (trigger == CREATED)
        return verdict(PASS);

    uint32_t silent_ms = idle_ms < since_validated_ms ? idle_ms : since_validated_ms;
    bool doubtful = peek != CLEAN || last_error != NONE || failed_probes > 0;
    bool fresh = trigger == CHECKOUT && silent_ms < WINDOW_MS && !doubtful;
    return verdict(fresh ? PASS : PING);
}
