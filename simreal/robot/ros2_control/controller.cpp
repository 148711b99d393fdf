// A ros2_control controller around the policy: claims the command interfaces of the driven joints, reads the states of
// the joints and of an IMU, and takes what no sensor shows from ~/inputs. Parameter `imu`: the name of the IMU's sensor.
#include <iterator>
#include <mutex>
#include <string>
#include <vector>

#include <controller_interface/controller_interface.hpp>
#include <pluginlib/class_list_macros.hpp>
#include <rclcpp/rclcpp.hpp>
#include <std_msgs/msg/float64_multi_array.hpp>

#include "policy_core.hpp"

namespace simreal {

class PolicyController : public controller_interface::ControllerInterface {
 public:
  using Return = controller_interface::CallbackReturn;
  using Configuration = controller_interface::InterfaceConfiguration;
  using Array = std_msgs::msg::Float64MultiArray;

  Return on_init() override {
    auto_declare<std::string>("imu", "imu");
    return Return::SUCCESS;
  }

  Configuration command_interface_configuration() const override {
    std::vector<std::string> names;
    for (int joint : DRIVEN) names.push_back(std::string(JOINTS[joint]) + "/" + COMMAND_INTERFACE);
    return {controller_interface::interface_configuration_type::INDIVIDUAL, names};
  }

  Configuration state_interface_configuration() const override {
    std::vector<std::string> names;
    for (const char *joint : JOINTS) {
      for (const char *what : STATE_INTERFACES) names.push_back(std::string(joint) + "/" + what);
    }
    if (USES_IMU) {
      for (const char *what : IMU_INTERFACES) names.push_back(imu_ + "/" + what);
    }
    return {controller_interface::interface_configuration_type::INDIVIDUAL, names};
  }

  Return on_configure(const rclcpp_lifecycle::State &) override {
    imu_ = get_node()->get_parameter("imu").as_string();
    inputs_.assign(INPUTS, 0.0);
    subscription_ = get_node()->create_subscription<Array>("~/inputs", 1, [this](const Array::SharedPtr message) {
      const std::lock_guard<std::mutex> guard(lock_);
      if (message->data.size() == inputs_.size()) inputs_ = message->data;
    });
    return Return::SUCCESS;
  }

  Return on_activate(const rclcpp_lifecycle::State &) override {
    read();
    core_.reset(position_.data());
    elapsed_s_ = POLICY_CONTROL_PERIOD_S;  // the first action is due at once
    return Return::SUCCESS;
  }

  Return on_deactivate(const rclcpp_lifecycle::State &) override { return Return::SUCCESS; }

  controller_interface::return_type update(const rclcpp::Time &, const rclcpp::Duration &period) override {
    elapsed_s_ += period.seconds();
    if (elapsed_s_ + 0.5 * period.seconds() < POLICY_CONTROL_PERIOD_S) return controller_interface::return_type::OK;
    elapsed_s_ = 0.0;
    read();
    {
      const std::unique_lock<std::mutex> guard(lock_, std::try_to_lock);  // never wait in the control loop
      if (guard.owns_lock()) now_ = inputs_;
    }
    double targets[POLICY_TARGET_SIZE];
    const bool good = core_.step(position_.data(), velocity_.data(), effort_.data(), measured_, now_.data(), targets);
    for (std::size_t i = 0; i < command_interfaces_.size(); ++i) {
      const double hold = HOLDS_POSITION ? position_[static_cast<std::size_t>(DRIVEN[i])] : 0.0;
      command_interfaces_[i].set_value(good ? targets[i] : hold);
    }
    return good ? controller_interface::return_type::OK : controller_interface::return_type::ERROR;
  }

 private:
  void read() {
    const std::size_t joints = std::size(JOINTS), kinds = std::size(STATE_INTERFACES);
    std::vector<double> *lists[] = {&position_, &velocity_, &effort_};
    for (auto *list : lists) list->assign(joints, 0.0);
    for (std::size_t joint = 0; joint < joints; ++joint) {
      for (std::size_t kind = 0; kind < kinds; ++kind) {
        (*lists[kind])[joint] = state_interfaces_[joint * kinds + kind].get_value();
      }
    }
    if (!USES_IMU) return;
    double values[10];
    for (std::size_t i = 0; i < 10; ++i) values[i] = state_interfaces_[joints * kinds + i].get_value();
    measured_.orientation = {{values[3], values[0], values[1], values[2]}};  // ROS says x, y, z, w
    measured_.gyro = {{values[4], values[5], values[6]}};
    measured_.acceleration = {{values[7], values[8], values[9]}};
  }

  PolicyCore core_;
  Imu measured_;
  std::string imu_ = "imu";
  std::vector<double> position_, velocity_, effort_, inputs_, now_ = std::vector<double>(INPUTS, 0.0);
  std::mutex lock_;
  double elapsed_s_ = 0.0;
  rclcpp::Subscription<Array>::SharedPtr subscription_;
};

}  // namespace simreal

PLUGINLIB_EXPORT_CLASS(simreal::PolicyController, controller_interface::ControllerInterface)
