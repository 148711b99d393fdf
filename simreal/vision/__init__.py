"""Pictures: `rendering` draws scenes, videos and contact sheets."""
