"""`simreal view`: a robot in the browser. `player` plays, `dials` are its world, `scene` and `page` show."""
