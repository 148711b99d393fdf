"""Any robot: how its file is opened (`files`, `urdf`), what is wrong with it (`doctor`), what it is made ready with
(`ready`), and tasks for it: `reach`, `hold`."""
