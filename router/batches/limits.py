"""What OpenAI's API allows, in its own numbers."""

MOST_FILE_BYTES = 512 * 2**20
MOST_INPUT_BYTES = 200 * 2**20  # of a batch
MOST_REQUESTS = 50_000  # of a batch
WINDOW, WINDOW_S = "24h", 24 * 3600
LEAST_KEPT_S, MOST_KEPT_S = 3_600, 2_592_000  # of a file, by `expires_after` and `output_expires_after`
KEPT_S = 30 * 24 * 3600  # of a file of purpose `batch` that does not say
MOST_METADATA, LONGEST_METADATA_KEY, LONGEST_METADATA_VALUE = 16, 64, 512
MOST_FILES_LISTED, MOST_BATCHES_LISTED, BATCHES_LISTED = 10_000, 100, 20
MOST_ERRORS = 100  # that a batch tells of its input
LONGEST_CUSTOM_ID = 512

# Of the paths that the router forwards, those that take JSON and answer with JSON.
ENDPOINTS = tuple(
    f"/v1/{path}"
    for path in (
        *("chat/completions", "completions", "embeddings", "responses", "moderations", "images/generations"),
        *("messages", "rerank", "score"),
    )
)
