"""Writes the source of a ros2_control controller from a bundle's contract and its policy in C."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from simreal.common.errors import UserError
from simreal.deploy.bundle_reader import CONTRACT, parse_contract
from simreal.export.folders import Kind
from simreal.export.source import ExportError
from simreal.robot.ros2 import safe_actions
from simreal.robot.sources import Sources, driven_joints, sources_of

_HERE = Path(__file__).parent
_SAME = ("policy_core.hpp", "controller.cpp")
_POLICY = ("policy.c", "policy.h", "contract.h")
_PACKAGE, _CLASS = "simreal_policy_controller", "simreal::PolicyController"
_INTERFACES = {
    "rad": "position",
    "m": "position",
    "rad/s": "velocity",
    "m/s": "velocity",
    "N m": "effort",
    "N": "effort",
}
_MARK = "// simreal-policy for ros2_control"
_FILES = (*_SAME, *_POLICY, "observation.hpp", "CMakeLists.txt", "package.xml", "plugin.xml", "controllers.yaml")
FOLDER = Kind("ros2_control controller", _FILES, ("observation.hpp", _MARK))

_CMAKE = f"""cmake_minimum_required(VERSION 3.16)
project({_PACKAGE} C CXX)
find_package(ament_cmake REQUIRED)
find_package(controller_interface REQUIRED)
find_package(pluginlib REQUIRED)
find_package(rclcpp REQUIRED)
find_package(std_msgs REQUIRED)
add_library({_PACKAGE} SHARED controller.cpp policy.c)
target_compile_features({_PACKAGE} PUBLIC cxx_std_17)
ament_target_dependencies({_PACKAGE} controller_interface pluginlib rclcpp std_msgs)
pluginlib_export_plugin_description_file(controller_interface plugin.xml)
install(TARGETS {_PACKAGE} DESTINATION lib)
ament_package()
"""
_PLUGIN = f"""<library path="{_PACKAGE}">
  <class name="{_PACKAGE}/PolicyController" type="{_CLASS}" base_class_type="controller_interface::ControllerInterface">
    <description>A policy of simreal.</description>
  </class>
</library>
"""

_YAML = f"""controller_manager:
  ros__parameters:
    update_rate: {{}}  # Hz, or a multiple
    policy_controller:
      type: {_PACKAGE}/PolicyController
"""


def write_controller(bundle: Path, code: Path, output: Path) -> None:
    """Write the package.

    Args:
        bundle: whose contract.
        code: the folder of its policy in C.
        output: the package's folder; one that was written before is replaced, anything else refused.

    Raises:
        UserError: the contract asks for what ros2_control's interfaces do not have, or `output` is in the way.
    """
    contract = parse_contract((bundle / CONTRACT).read_bytes())
    files = {name: (_HERE / name).read_bytes() for name in _SAME} | {
        name: (code / name).read_bytes() for name in _POLICY
    }
    files |= {name: text.encode() for name, text in _texts(contract).items()}
    try:
        FOLDER.write(output, files)
    except ExportError as error:
        raise UserError(str(error)) from None
    except OSError as error:
        raise UserError(f"{output}: cannot be written: {error.strerror}") from None


def _texts(contract: Mapping[str, Any]) -> dict[str, str]:
    """Files that depend on the contract."""
    found = sources_of(contract["observation"], _own(contract))
    driven = [name for entry in contract["action"] for name in driven_joints(entry)]
    units = {str((entry.get("inverse") or entry)["unit"]) for entry in contract["action"]}
    safe_actions(units)  # one interface for all
    if not units <= set(_INTERFACES):
        raise UserError(f"--ros2-control: targets in {', '.join(sorted(units))} are of no interface of ros2_control")
    period = float(contract["control_period_s"])
    return {
        "observation.hpp": _observation(contract, found, driven, _INTERFACES[min(units)]),
        "CMakeLists.txt": _CMAKE,
        "plugin.xml": _PLUGIN,
        "package.xml": _package(),
        "controllers.yaml": _YAML.format(round(1.0 / period)),
    }


def _own(contract: Mapping[str, Any]) -> dict[str, str]:
    """Components that the controller knows by itself, and of what kind they are."""
    sent = {f"{entry['name']} as it was sent last" for entry in contract["action"]}
    found = {}
    for entry in contract["observation"]:
        if entry["description"] in ("last action", "the action before this one") and not entry["measured"]:
            found[entry["name"]] = "last_action"
        elif entry["description"] in sent:
            found[entry["name"]] = "last_target"
    return found


def _observation(contract: Mapping[str, Any], found: Sources, driven: Sequence[str], command: str) -> str:
    """The tables of policy_core.hpp."""
    joints = list(found.names | dict.fromkeys(driven))
    own, rows, inputs = _own(contract), list[str](), list[str]()
    by_joints, by_imu = {s.component: s for s in found.joints}, {s.component: s for s in found.imu}
    sizes = [len(driven_joints(entry)) for entry in contract["action"]]
    targets = {entry["name"]: sum(sizes[:i]) for i, entry in enumerate(contract["action"])}
    for entry in contract["observation"]:
        name, size = entry["name"], entry["shape"][0]
        if name in by_joints:
            source = by_joints[name]
            rows += [
                f"{{Kind::{source.quantity}, {joints.index(joint)}, {minus!r}}}"
                for joint, minus in zip(source.joints, source.relative_to.tolist(), strict=True)
            ]
            continue
        kind = by_imu[name].quantity if name in by_imu else own.get(name, "input")
        start = len(inputs) if kind == "input" else 0
        if kind == "last_target":
            start = targets[entry["description"].removesuffix(" as it was sent last")]
        if kind == "input":
            inputs += [f"{name} {i}" for i in range(size)]
        rows += [f"{{Kind::{kind}, {start + i}, 0.0}}" for i in range(size)]
    quoted = ", ".join(f'"{joint}"' for joint in joints)
    efforts = ', "effort"' if any(s.quantity == "effort" for s in found.joints) else ""
    imu = [f"orientation.{a}" for a in "xyzw"] + [
        f"{w}.{a}" for w in ("angular_velocity", "linear_acceleration") for a in "xyz"
    ]
    return f"""{_MARK}: where the observation comes from, for contract {contract["contract_sha256"]}.
#ifndef SIMREAL_OBSERVATION_HPP
#define SIMREAL_OBSERVATION_HPP

namespace simreal {{

enum class Kind {{
  position, velocity, effort, gyro, gravity, orientation, columns, acceleration, last_action, last_target, input
}};
struct Value {{
  Kind kind;
  int index;     // of the joint, the axis, the action or the input
  double minus;  // what the policy sees is the value less this
}};

inline constexpr const char *JOINTS[] = {{{quoted}}};
inline constexpr int DRIVEN[] = {{{", ".join(str(joints.index(name)) for name in driven)}}};  // of JOINTS, by target
inline constexpr const char *STATE_INTERFACES[] = {{"position", "velocity"{efforts}}};
inline constexpr const char *COMMAND_INTERFACE = "{command}";
inline constexpr bool HOLDS_POSITION = {str(command == "position").lower()};
inline constexpr bool USES_IMU = {str(bool(found.imu)).lower()};
inline constexpr const char *IMU_INTERFACES[] = {{{", ".join(f'"{name}"' for name in imu)}}};
inline constexpr int INPUTS = {len(inputs)};  // {", ".join(inputs) or "none"}: the values of ~/inputs, in this order
inline constexpr Value OBSERVATION[] = {{
  {(f",{chr(10)}  ").join(rows)}
}};

}}  // namespace simreal

#endif
"""


def _package() -> str:
    depends = "".join(
        f"  <depend>{name}</depend>\n" for name in ("controller_interface", "pluginlib", "rclcpp", "std_msgs")
    )
    return (
        f'<?xml version="1.0"?>\n<package format="3">\n  <name>{_PACKAGE}</name>\n  <version>0.0.1</version>\n'
        "  <description>A policy of simreal as a ros2_control controller.</description>\n"
        '  <maintainer email="nobody@example.com">nobody</maintainer>\n  <license>Apache-2.0</license>\n'
        f"  <buildtool_depend>ament_cmake</buildtool_depend>\n{depends}"
        "  <export><build_type>ament_cmake</build_type></export>\n</package>\n"
    )
