-- One record. ARGV: id. Gives {id, fields and values, body}, or nil.

sweep_if_allowed()
return (show(ARGV[1]))
