"""IC-Light for Refiners: relight a foreground by a text or by a background."""
