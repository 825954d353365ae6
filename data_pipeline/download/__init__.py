"""Downloads AudioSet: its lists of segments, and the segments' sound with yt-dlp."""
