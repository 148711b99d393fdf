"""Physics engines and tasks: the lowest floor of simreal. Users reach it through `simreal`."""
