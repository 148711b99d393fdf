/* A policy, from an observation to an action and to what is sent to the robot. What the numbers mean: contract.h.
 *
 *     static policy walk;
 *     policy_reset(&walk);                          at the start of every episode
 *     every POLICY_CONTROL_PERIOD_S seconds:
 *         if (policy_step(&walk, observation, action) != POLICY_OK) stop();
 *         if (policy_targets(&walk, action, targets) != POLICY_OK) stop();
 *         send(targets);
 *
 * Nothing is allocated, nothing is kept outside the struct: as many may run at once as there are structs. */
#ifndef SIMREAL_POLICY_H
#define SIMREAL_POLICY_H

#include "contract.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
    POLICY_OK = 0,
    POLICY_OBSERVATION_NOT_FINITE = 1, /* an observation is NaN or infinite; everything is left as it was */
    POLICY_ACTION_NOT_FINITE = 2,      /* the action is; everything is left as it was */
    POLICY_START_NOT_KNOWN = 3         /* from where smoothing starts, or what targets are added to: policy_reset_to
                                          says the former, policy_step the latter */
} policy_status;

typedef struct {
    double sent[POLICY_TARGET_SIZE]; /* what was sent last, where it counts; NaN: not known */
#if POLICY_ADDS_TO_OBSERVED
    double shown[POLICY_TARGET_SIZE]; /* what the last observation shows of what targets are added to */
#endif
    float a[POLICY_WORK_SIZE], b[POLICY_WORK_SIZE];
#if POLICY_STATE_SIZE > 0
    float c[POLICY_WORK_SIZE];
    float state[POLICY_STATE_SIZE], next[POLICY_STATE_SIZE]; /* what the policy remembers */
#endif
} policy;

/* Forget the episode so far. */
void policy_reset(policy *p);

/* The same; the robot has been told to hold these targets, from where smoothing starts. */
void policy_reset_to(policy *p, const double targets[POLICY_TARGET_SIZE]);

/* The action in [-1, 1] for an observation in the contract's units; the next call goes on from it. */
policy_status policy_step(policy *p, const float observation[POLICY_OBSERVATION_SIZE],
                          float action[POLICY_ACTION_SIZE]);

/* What is sent for the action of a step, in the contract's units: offset + scale * action, added to what was sent before
 * or to what was observed where the contract says so, within its limits, of which smoothing goes a part of the way from
 * what was sent before. Steps of a tool become steps of the joints that carry it. Call it once after each policy_step. */
policy_status policy_targets(policy *p, const float action[POLICY_ACTION_SIZE], double targets[POLICY_TARGET_SIZE]);

#ifdef __cplusplus
}
#endif
#endif
