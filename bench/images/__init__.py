"""The images job over a loopback web: does all of it end well, and what does an image cost beside img2dataset."""
