#pragma once
#define PLUGINLIB_EXPORT_CLASS(type, base) static_assert(sizeof(type) > sizeof(base), "a controller");
