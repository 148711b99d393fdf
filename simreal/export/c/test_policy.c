/* Compares the policy with golden.h; exit status 1 where it answers otherwise. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "golden.h"
#include "policy.h"

static int failures = 0;

static void check(int good, const char *what)
{
    if (!good) {
        failures++;
        printf("FAILED: %s\n", what);
    }
}

/* max(|x - y| / max(1, |y|)), infinite where one of them is NaN. */
static double worse(double error, double x, double y)
{
    const double size = fabs(y) > 1.0 ? fabs(y) : 1.0, found = fabs(x - y) / size;
    return found >= error ? found : (found < error ? error : HUGE_VAL);
}

/* The golden observations as one episode; largest errors of actions, states and targets. */
static void replay(policy *p, double errors[3])
{
    float action[POLICY_ACTION_SIZE];
    double targets[POLICY_TARGET_SIZE];
    int step, i;
    policy_reset(p);
    for (step = 0; step < GOLDEN_STEPS; step++) {
        check(policy_step(p, golden_observations[step], action) == POLICY_OK, "a step");
        for (i = 0; i < POLICY_ACTION_SIZE; i++)
            errors[0] = worse(errors[0], action[i], golden_actions[step][i]);
#if POLICY_STATE_SIZE > 0
        for (i = 0; i < POLICY_STATE_SIZE; i++)
            errors[1] = worse(errors[1], p->state[i], golden_states[step][i]);
        memcpy(p->state, golden_states[step], sizeof p->state); /* rounding must not add up */
#endif
#if GOLDEN_TARGETS
        check(policy_targets(p, golden_actions[step], targets) == POLICY_OK, "targets");
        for (i = 0; i < POLICY_TARGET_SIZE; i++)
            errors[2] = worse(errors[2], targets[i], golden_targets[step][i]);
#else
        (void)targets;
#endif
    }
}

#if GOLDEN_FAR > 0 && !POLICY_INT8
/* Observations far outside training, each the first of an episode; the largest error of an action. */
static double look_far(policy *p)
{
    float action[POLICY_ACTION_SIZE];
    double error = 0.0;
    int row, i;
    for (row = 0; row < GOLDEN_FAR; row++) {
        policy_reset(p);
        check(policy_step(p, golden_far_observations[row], action) == POLICY_OK, "a step far outside training");
        for (i = 0; i < POLICY_ACTION_SIZE; i++) error = worse(error, action[i], golden_far_actions[row][i]);
    }
    return error;
}
#endif

/* Two policies that take turns must answer as one alone does. */
static void take_turns(policy *p, policy *q)
{
    float first[POLICY_ACTION_SIZE], again[POLICY_ACTION_SIZE], other[POLICY_ACTION_SIZE];
    policy_reset(p);
    check(policy_step(p, golden_observations[0], first) == POLICY_OK, "a step");
    policy_reset(p);
    policy_reset(q);
    check(policy_step(q, golden_observations[GOLDEN_STEPS - 1], other) == POLICY_OK, "a step of another policy");
    check(policy_step(p, golden_observations[0], again) == POLICY_OK, "a step");
    check(memcmp(first, again, sizeof first) == 0, "another policy changes the action");
}

static void refuse_nan(policy *p)
{
    float observation[POLICY_OBSERVATION_SIZE], action[POLICY_ACTION_SIZE] = {0.0f}, kept[POLICY_ACTION_SIZE];
    policy before;
    policy_reset(p);
    before = *p;
    memcpy(kept, action, sizeof kept);
    memcpy(observation, golden_observations[0], sizeof observation);
    observation[POLICY_OBSERVATION_SIZE - 1] = NAN;
    check(policy_step(p, observation, action) == POLICY_OBSERVATION_NOT_FINITE, "NaN is refused");
    observation[POLICY_OBSERVATION_SIZE - 1] = INFINITY;
    check(policy_step(p, observation, action) == POLICY_OBSERVATION_NOT_FINITE, "infinity is refused");
    check(memcmp(kept, action, sizeof kept) == 0, "a refused step leaves the action");
    check(memcmp(before.sent, p->sent, sizeof before.sent) == 0, "a refused step leaves what was sent");
#if POLICY_STATE_SIZE > 0
    check(memcmp(before.state, p->state, sizeof before.state) == 0, "a refused step leaves the state");
#endif
    action[0] = NAN;
    {
        double targets[POLICY_TARGET_SIZE];
        check(policy_targets(p, action, targets) == POLICY_ACTION_NOT_FINITE, "an action that is NaN is refused");
    }
}

int main(void)
{
    static policy one, two;
    double errors[3] = {0.0, 0.0, 0.0};
    replay(&one, errors);
    replay(&one, errors); /* an episode leaves nothing behind */
    take_turns(&one, &two);
    refuse_nan(&one);
    printf("%s, %s weights, %d golden steps: actions off by %.1e (at most %.1e)", POLICY_TASK, POLICY_WEIGHTS,
           GOLDEN_STEPS, errors[0], POLICY_TOLERANCE);
#if POLICY_STATE_SIZE > 0
    printf(", states %.1e", errors[1]);
#endif
#if GOLDEN_TARGETS
    printf(", targets %.1e", errors[2]);
#endif
    printf("; %lu bytes of RAM\n", (unsigned long)sizeof(policy));
    check(errors[0] <= POLICY_TOLERANCE, "actions are those of golden.h");
#if !POLICY_INT8
    check(errors[1] <= POLICY_TOLERANCE, "states are those of golden.h");
#endif
#if GOLDEN_FAR > 0 && !POLICY_INT8
    check(look_far(&one) <= 1e-3, "actions far outside training are those of golden.h");
#endif
    check(errors[2] <= 1e-9, "targets are those of golden.h");
    return failures == 0 ? 0 : 1;
}
