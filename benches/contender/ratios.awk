# Reads the shared benchmark's table.md and prints Claviger's figures as parts of the yardsticks'.

/^### / { scenario = $2; header = 0 }

# The first row of a table names its columns; the dashes below it are no figures.
/^\|/ {
    cells = split($0, cell, / *\| */)
    if (!header) {
        for (i = 2; i < cells; i++) name[i] = cell[i]
        header = 1
    } else if (cell[2] !~ /^-/) {
        for (i = 3; i < cells; i++) figure[scenario, cell[2], name[i]] = cell[i]
    }
}

function ratio(scenario, contender, yardstick, column,    a, b) {
    a = figure[scenario, contender, column]
    b = figure[scenario, yardstick, column]
    return a + 0 > 0 && b + 0 > 0 ? sprintf("%.2f", a / b) : "-"
}

function line(what, scenario, column, yardstick, bound,    row, i) {
    row = "| " what " | " bound " of " yardstick " |"
    for (i = 1; i <= 2; i++) {
        row = row " " figure[scenario, contenders[i], column] " | " ratio(scenario, contenders[i], "floor", column) " | " \
            ratio(scenario, contenders[i], "floor-durable", column) " |"
    }
    print row
}

END {
    split("claviger claviger-committed", contenders, " ")
    print "| | bound | claviger | of floor | of floor-durable | claviger-committed | of floor | of floor-durable |"
    print "|---|---|--:|--:|--:|--:|--:|--:|"
    line("CPU a request, 32 connections (ms/1000)", "ka32", "proxy CPU ms/1k req", "floor-durable", "at most 2.2")
    line("requests/s, 32 connections", "ka32", "rps", "floor-durable", "at least 0.5")
    line("p50, 1 connection (µs)", "seq", "p50 µs", "floor-durable", "at most 1.5")
    line("new CONNECT a request (1/s)", "new8", "rps", "floor-durable", "at least 0.6")
    line("1 GiB down (MiB/s)", "down", "MiB/s", "floor", "at least 0.8")
    line("1 GiB up (MiB/s)", "up", "MiB/s", "floor", "at least 0.8")
}
