// What the controller uses of ros2_control (humble, jazzy), declared only: enough to compile against, not to run.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include <rclcpp/rclcpp.hpp>

namespace rclcpp_lifecycle {
class State {};
struct LifecycleNode {
  rclcpp::Parameter get_parameter(const std::string &) const;
  template <typename Message, typename Callback>
  typename rclcpp::Subscription<Message>::SharedPtr create_subscription(const std::string &, std::size_t, Callback &&) {
    return nullptr;
  }
};
}  // namespace rclcpp_lifecycle

namespace hardware_interface {
struct LoanedCommandInterface {
  void set_value(double);
};
struct LoanedStateInterface {
  double get_value() const;
};
}  // namespace hardware_interface

namespace controller_interface {
enum class return_type { OK, ERROR };
enum class CallbackReturn { SUCCESS, FAILURE, ERROR };
enum class interface_configuration_type { ALL, INDIVIDUAL, NONE };
struct InterfaceConfiguration {
  interface_configuration_type type;
  std::vector<std::string> names;
};
class ControllerInterface {
 public:
  virtual ~ControllerInterface() = default;
  virtual CallbackReturn on_init() = 0;
  virtual InterfaceConfiguration command_interface_configuration() const = 0;
  virtual InterfaceConfiguration state_interface_configuration() const = 0;
  virtual CallbackReturn on_configure(const rclcpp_lifecycle::State &) = 0;
  virtual CallbackReturn on_activate(const rclcpp_lifecycle::State &) = 0;
  virtual CallbackReturn on_deactivate(const rclcpp_lifecycle::State &) = 0;
  virtual return_type update(const rclcpp::Time &, const rclcpp::Duration &) = 0;
  std::shared_ptr<rclcpp_lifecycle::LifecycleNode> get_node() const;
  template <typename T>
  void auto_declare(const std::string &, const T &) {}

 protected:
  std::vector<hardware_interface::LoanedCommandInterface> command_interfaces_;
  std::vector<hardware_interface::LoanedStateInterface> state_interfaces_;
};
}  // namespace controller_interface
