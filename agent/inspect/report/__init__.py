"""The report on a job as one page of HTML: no script, no request, figures drawn as SVG."""
