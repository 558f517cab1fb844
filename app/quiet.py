"""How listeners that answer at once are attached: without a spinner, never in line, not in the HTTP API.

They go through Gradio's queue all the same: what passes it by tells nobody that a `gr.State` has changed.
"""

from typing import Any

QUIET: dict[str, Any] = {"concurrency_limit": None, "show_progress": "hidden", "api_visibility": "private"}
