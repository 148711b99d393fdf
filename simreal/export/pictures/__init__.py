"""Exports of what looks at pictures: `graph` writes convolutions as ONNX, `policy` policies, `estimator` estimators,
`camera` says where a camera is and how it sees."""
