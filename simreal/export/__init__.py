"""From a trained policy to a bundle that a robot loads: `bundle.export_bundle`."""
