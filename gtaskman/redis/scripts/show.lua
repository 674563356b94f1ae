-- One record. ARGV: id. Gives {id, fields and values, body}, or nil.

sweep(128)
return (show(ARGV[1]))
