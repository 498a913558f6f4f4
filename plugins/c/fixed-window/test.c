/* The decision, natively: `make -C plugins/c test`. */

#include "policy.c"

#include <stdio.h>

static int failures;

static void expect(const char *what, double answer, enum action action, uint32_t trust_ms) {
    if (answer != action + 1048576.0 * trust_ms) {
        fprintf(stderr, "%s: %.0f\n", what, answer);
        failures++;
    }
}

/* A connection that was used `idle_ms` ago and validated long before. */
static double ask(uint32_t trigger, uint32_t idle_ms, uint32_t transaction, uint32_t peek, uint32_t error) {
    return check(trigger, 60000, idle_ms, 1000, 0, 50000, WINDOW_MS, 0, 100, transaction, 0, peek, error, 5000, 0, 0);
}

int main(void) {
    expect("fresh", ask(CHECKOUT, WINDOW_MS - 1, IDLE, CLEAN, NONE), PASS, WINDOW_MS);
    expect("not fresh", ask(CHECKOUT, WINDOW_MS, IDLE, CLEAN, NONE), PING, WINDOW_MS);
    expect("data waiting", ask(CHECKOUT, 0, IDLE, 1, NONE), PING, WINDOW_MS);
    expect("an error before", ask(CHECKOUT, 0, IDLE, CLEAN, 2), PING, WINDOW_MS);
    for (uint32_t trigger = 0; trigger < 6; trigger++)
        expect("closed", ask(trigger, 0, IDLE, CLOSED, NONE), DISCARD, 0);
    expect("outdated", check(0, 60000, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5000, 0, 1), DISCARD, 0);
    expect("validated", check(0, 60000, 9000, 9, 0, 5, 0, 0, 0, 0, 0, 0, 0, 5000, 0, 0), PASS, WINDOW_MS);
    expect("a failed probe", check(0, 60000, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5000, 1, 0), PING, WINDOW_MS);

    expect("returned", ask(RETURN, 9000, IDLE, CLEAN, NONE), PASS, WINDOW_MS);
    expect("open", ask(RETURN, 0, OPEN, CLEAN, NONE), ROLL_BACK, WINDOW_MS);
    expect("failed", ask(RETURN, 0, FAILED, CLEAN, NONE), ROLL_BACK, WINDOW_MS);
    expect("unknown", ask(RETURN, 0, 3, CLEAN, NONE), RESET_FULLY, WINDOW_MS);
    expect("created", ask(CREATED, 0, IDLE, CLEAN, NONE), PASS, WINDOW_MS);
    expect("keep-alive", ask(4, 0, IDLE, CLEAN, NONE), PING, WINDOW_MS);

    const enum action after[] = {PING, DISCARD, PING, DISCARD, DISCARD, DISCARD, PING, PING};
    for (uint32_t error = 0; error < 8; error++)
        expect("after an error", ask(ERROR, 0, IDLE, CLEAN, error), after[error], after[error] == DISCARD ? 0 : WINDOW_MS);
    return failures > 0;
}
