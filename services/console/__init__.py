"""The console: pages about recommendations under /console of the service (docs/console.md).

Pages are rendered on the server. Their state is in the URL, so a link shows the same page. htmx
replaces parts of a page; without JavaScript the same forms and links load whole pages.
"""
