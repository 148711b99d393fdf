#!/usr/bin/env bash
# xacro 2.1.1 (from PyPI): a property that looks like a number loses its zeros on the way into a name, in quotes too.
#
# Expected: id="007" put into a name with ${id} gives 007; at the least in single quotes, which keep a string a string where
# they are given to a macro: <xacro:arm id="'007'"/> is arm_007.
# Seen: a property becomes 7 with the quotes, as ${'007'} and as ${str('007')} too; a macro that is given it gets 7. "1e3" becomes
# 1000.0, "12.50" 12.5. $(arg) put into a name directly stays 007. Configuration files with the name as written find no such joint.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check xacro==2.1.1 2> /dev/null
"$place/venv/bin/python" - 2> "$place/said" <<'PYTHON' || { cat "$place/said"; exit 1; }
import xacro

ROBOT = """
<robot name="robot" xmlns:xacro="http://www.ros.org/wiki/xacro">
  <xacro:arg name="serial" default="007"/>
  <xacro:property name="bare" value="007"/>
  <xacro:property name="quoted" value="'007'"/>
  <xacro:property name="literal" value="${'007'}"/>
  <xacro:property name="string" value="${str('007')}"/>
  <xacro:property name="batch" value="1e3"/>
  <xacro:property name="release" value="'12.50'"/>
  <xacro:macro name="arm" params="id"><link name="arm_${id}"/></xacro:macro>
  <link name="$(arg serial)"/><link name="${bare}"/><link name="${quoted}"/><link name="${literal}"/><link name="${string}"/>
  <link name="${batch}"/><link name="${release}"/><xacro:arm id="'007'"/><xacro:arm id="${quoted}"/>
</robot>"""
document = xacro.parse(ROBOT)
xacro.process_doc(document)
names = [link.getAttribute("name") for link in document.getElementsByTagName("link")]
print("link names:", *names)
print("expected: 007 007 007 007 007 1e3 12.50 arm_007 arm_007; seen: 007 7 7 7 7 1000.0 12.5 arm_007 arm_7")
raise SystemExit(0 if names == ["007", "7", "7", "7", "7", "1000.0", "12.5", "arm_007", "arm_7"] else 1)
PYTHON
if [ -s "$place/said" ]; then
    echo "it now says:"
    cat "$place/said"
    exit 1
fi
