// What the controller does between states and commands, without ROS: puts an observation together by the contract's
// names, runs the policy (policy.c), and says what is sent. The tables are in observation.hpp.
#ifndef SIMREAL_POLICY_CORE_HPP
#define SIMREAL_POLICY_CORE_HPP

#include <array>
#include <cmath>
#include <cstddef>

#include "observation.hpp"
#include "policy.h"

namespace simreal {

struct Imu {
  std::array<double, 4> orientation{{1.0, 0.0, 0.0, 0.0}};  // w, x, y, z; from the IMU's axes to the world's
  std::array<double, 3> gyro{{0.0, 0.0, 0.0}};              // rad/s
  std::array<double, 3> acceleration{{0.0, 0.0, 0.0}};      // m/s2, at rest 9.81 upwards
};

class PolicyCore {
 public:
  PolicyCore() { reset(); }

  // Forget the episode so far; the joints are where `positions` [JOINTS] says, or where the contract says.
  void reset(const double *positions = nullptr) {
    policy_reset(&policy_);
    action_.fill(0.0F);
    for (std::size_t i = 0; i < targets_.size(); ++i) {
      targets_[i] = positions == nullptr ? 0.0 : positions[DRIVEN[i]];
    }
  }

  // One control period: targets [POLICY_TARGET_SIZE] for states of JOINTS, the IMU, and inputs [INPUTS].
  // False: something is not finite, or the policy cannot go on; nothing must be sent.
  bool step(const double *position, const double *velocity, const double *effort, const Imu &imu,
            const double *inputs, double *targets) {
    std::array<double, 9> turn{};
    if (!matrix(imu.orientation, turn)) return false;
    std::array<float, POLICY_OBSERVATION_SIZE> observation{};
    for (std::size_t i = 0; i < observation.size(); ++i) {
      const Value &from = OBSERVATION[i];
      const auto at = static_cast<std::size_t>(from.index);
      double value = 0.0;
      switch (from.kind) {
        case Kind::position: value = position[at]; break;
        case Kind::velocity: value = velocity[at]; break;
        case Kind::effort: value = effort[at]; break;
        case Kind::gyro: value = imu.gyro[at]; break;
        case Kind::acceleration: value = imu.acceleration[at]; break;
        case Kind::gravity: value = -turn[6 + at]; break;
        case Kind::orientation: value = imu.orientation[0] < 0.0 ? -imu.orientation[at] : imu.orientation[at]; break;
        case Kind::columns: value = turn[3 * (at % 3) + at / 3]; break;
        case Kind::last_action: value = static_cast<double>(action_[at]); break;
        case Kind::last_target: value = targets_[at]; break;
        case Kind::input: value = inputs[at]; break;
      }
      observation[i] = static_cast<float>(value - from.minus);
    }
    std::array<double, POLICY_TARGET_SIZE> next{};
    if (policy_step(&policy_, observation.data(), action_.data()) != POLICY_OK) return false;
    if (policy_targets(&policy_, action_.data(), next.data()) != POLICY_OK) return false;
    targets_ = next;
    for (std::size_t i = 0; i < targets_.size(); ++i) targets[i] = targets_[i];
    return true;
  }

 private:
  static bool matrix(const std::array<double, 4> &q, std::array<double, 9> &to) {
    const double length = std::sqrt(q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3]);
    if (!(length > 0.9 && length < 1.1)) return false;
    const double w = q[0] / length, x = q[1] / length, y = q[2] / length, z = q[3] / length;
    to = {{1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
           2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
           2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)}};
    return true;
  }

  policy policy_{};
  std::array<float, POLICY_ACTION_SIZE> action_{};
  std::array<double, POLICY_TARGET_SIZE> targets_{};
};

}  // namespace simreal

#endif
