"""Programs that write in place as people rightly do: no gradient of theirs is wrong."""
