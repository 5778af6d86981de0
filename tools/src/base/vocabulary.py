"""The words and limits of the contract, as data: states, transitions, roles, sizes, times."""

VERSION = "1.0.0"

DEFAULT_NAME = "AGENT"
DEFAULT_PORT = 20910
DEFAULT_CONTEXT = "GLOBAL"
DEFAULT_REPOSITORY = "WORKREP"

WAITING, QUEUED, RUNNING = "WAITING", "QUEUED", "RUNNING"
DONE, WARNING, ERROR, STOPPED = "DONE", "WARNING", "ERROR", "STOPPED"
OUTSTANDING = (WAITING, QUEUED)
OPEN = OUTSTANDING + (RUNNING,)
ENDED = (DONE, WARNING, ERROR, STOPPED)
STATES = OPEN + ENDED
RESTARTABLE = (ERROR, STOPPED)

# new state of a session -> the states it may come from
TRANSITIONS = {
    WAITING: (QUEUED,),                             # a hold
    QUEUED: (WAITING, RUNNING, ERROR, STOPPED),     # its time, on_stale=restart, RESTART
    RUNNING: OUTSTANDING,
    DONE: (RUNNING,),
    WARNING: (RUNNING,),
    ERROR: OPEN,
    STOPPED: OPEN,
}

STARTED, LATE, SKIPPED, FAILED = "started", "late", "skipped", "failed"     # of an occurrence
MISFIRE, HELD, LOST = "misfire", "hold", "repository"                       # reasons of one: it was
OVERLAP, LIMIT = "overlap", "limit"                                         # missed, or had no room
# what a session waits for, beside a hold, a limit and a repository
AT_TIME, FOR_SLOT, FOR_CHILDREN, FOR_ENGINE = "time", "slot", "children", "engine"
LOCAL = "LOCAL"                     # instead of an engine: this host
ALL_SCHEDULES = ""                  # in the ledger: what concerns all of them, a step of the clock
END, FAIL = "END", "FAIL"                                                   # targets of a step
WAKE = b"!"             # to the main thread: a request to stop; a signal's byte is its number
NORMAL, IMMEDIATE = "normal", "immediate"                                   # ways to stop
ADOPT = "adopt"                                                             # on_stale
OUT, ERR = "out", "err"                                                     # streams of a task

MONITOR, OPERATOR, ADMINISTRATOR = "monitor", "operator", "administrator"
ROLES = (MONITOR, OPERATOR, ADMINISTRATOR)          # each may do what those before it may

RESERVED_VARIABLES = ("SESSION", "SCENARIO", "CONTEXT", "DUE")
MARKER = "AGENT_MARKER"             # environment variable of every process of a task

MAX_NAME = 128                      # characters
MIN_LINE = 1024                     # bytes: the least that --max-line takes
MAX_LINE = 64 * 1024                # bytes of a request
MAX_IMPORT_LINE = 4 * 1024 * 1024   # bytes of an IMPORT by an administrator
MIN_SECRET = 4                      # characters; a shorter value cannot be masked sensibly
MASK = "***"
MAX_LOG_LINE = 16 * 1024            # bytes; a longer line of output is split
MAX_VALUE = 64 * 1024               # bytes of the value of a variable
MAX_TEXT = 16 * 1024 * 1024         # characters of a text of a task, its references replaced
MAX_EXPRESSION = 1000               # characters of a regular expression
MAX_OUTPUT = 1024 * 1024            # bytes kept of one task's output
MAX_CONNECTIONS = 1000
MAX_PER_ADDRESS = 50                # connections from one address, those of the owner aside
MAX_QUEUE = 100000                  # outstanding sessions of an agent
MAX_LIST = 1000000                  # rows of a listing
MAX_BATCH = 500                     # requests that share a commit
MAX_REPOSITORIES = 999
SESSIONS_PER_CORE = 4
KEEP_DAYS = 90

WRITE_S = 5.0           # a request that cannot be written for so long is refused
TERM_S = 2.0            # between SIGTERM and SIGKILL
SEARCH_S = 5           # that a regular expression may be compiled and searched
KILL_S = 10.0           # how long what got SIGKILL is waited for
NOT_ENDED = "cannot be ended"       # in the message of a session: processes, or a call
TRY_S = 0.2             # between two tries of what the host cannot give now
DRAIN_S = 0.5           # how long after its exit a task's pipes are read
LINGER, LINGER_S = 64 * 1024, 1.0       # bytes and seconds read of what follows the last request
STRANGER_S = 30.0       # how long one whom the agent does not know is waited for
IDLE_S = 3600.0         # how long a user's connection may be silent
LINE_S = 60.0           # how long a line of a user may take
SEND_S = 300.0          # how long a user may take for a piece of a reply
STOP_S = 60.0           # default of SHUTDOWN -MAX_WAIT
LATE_S = 1.0            # begun so long after its due time is late
STEP_S = 0.5            # the clock of the day and the steady one differ by more: one has stepped
MAX_MISSED = 100        # sessions that misfire=all makes at most
MISSED_S = 86400.0      # and for no due time older than this, unless grace says so
EXCLUDED_S = 60.0       # between two records of what a schedule's window excludes
HEARTBEAT_S = 10.0
YIELD_S = 0.2           # how long a session's begin gives way to requests that wait for their OK
YIELD_REQUESTS = 3      # as many at once make it give way
FLOOD_S = 0.05          # and so long after they did
ATTACH_S = 2.0          # between tries to attach a repository, and looks at one's health
GLANCE_S = 0.5          # between glances at what SQLite keeps beside it
CLEAN_S = 60.0          # between two cleanings
ENGINE_LOOK_S = 3.0     # between two looks at the tasks of an engine
ENGINE_CALL_S = 30.0    # that a command of an engine, or a look into its spool, may take
BELIEF_S = 86400.0      # a clock that is further ahead than before is believed after so long

# what an import makes of a definition
NEW, ALTERED, SAME = "new", "changed", "same"

EXIT_OK, EXIT_CANNOT_START, EXIT_USAGE = 0, 1, 2
