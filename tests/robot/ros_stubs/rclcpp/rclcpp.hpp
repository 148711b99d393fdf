#pragma once
#include <memory>
#include <string>

namespace rclcpp {
class Time {};
struct Duration {
  double seconds() const;
};
struct Parameter {
  std::string as_string() const;
};
template <typename Message>
struct Subscription {
  using SharedPtr = std::shared_ptr<Subscription>;
};
}  // namespace rclcpp
