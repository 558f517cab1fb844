"""The page's own theme, on Gradio's: quiet surfaces, one strong colour, contrast of AA and more in light and dark."""

import gradio as gr

THEME = gr.themes.Base(
    primary_hue="teal",
    neutral_hue="zinc",
    spacing_size="sm",
    radius_size="md",
    font=["system-ui", "sans-serif"],  # the visitor's own: nothing is fetched
    font_mono=["ui-monospace", "monospace"],
).set(
    body_background_fill="*neutral_50",
    body_background_fill_dark="*neutral_950",
    body_text_color="*neutral_900",
    body_text_color_dark="*neutral_100",
    body_text_color_subdued="*neutral_600",
    body_text_color_subdued_dark="*neutral_400",
    link_text_color="*primary_700",
    link_text_color_dark="*primary_300",
    button_primary_background_fill="*primary_700",
    button_primary_background_fill_dark="*primary_400",
    button_primary_text_color="white",
    button_primary_text_color_dark="*neutral_950",
)
