"""Tags recordings for people: choosing tags, text formats, files of scores and pictures."""
