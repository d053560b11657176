//! As much of HTML and of URLs as the crawler needs.

/// What is in the `href`s of a page.
pub(crate) fn links(html: &str) -> Vec<&str> {
    html.split("href=\"").skip(1).filter_map(|rest| rest.split_once('"')).map(|(link, _)| link).collect()
}

/// The title, and the number of words of the body.
pub(crate) fn harvest(html: &str) -> (String, usize) {
    let title = between(html, "<title>", "</title>").unwrap_or_default().trim().to_owned();
    let body = between(html, "<body>", "</body>").unwrap_or_default();
    let text: Vec<_> = body.split('<').map(|part| part.split_once('>').map_or(part, |(_, text)| text)).collect();
    (title, text.join(" ").split_whitespace().count())
}

fn between<'a>(text: &'a str, begin: &str, end: &str) -> Option<&'a str> {
    text.split_once(begin)?.1.split_once(end).map(|(inside, _)| inside)
}

/// Where a link on the page `base` leads to; `None` if not to something on the web without encryption.
pub(crate) fn resolve(base: &str, link: &str) -> Option<String> {
    let link = link.split('#').next().unwrap_or_default();
    if let Some(rest) = link.strip_prefix("http://") {
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        return (!host.is_empty()).then(|| format!("http://{host}{}", normal(&format!("/{path}"))));
    }
    // Another scheme, such as `https:` or `mailto:`, ends before the first slash.
    if link.split('/').next().is_some_and(|start| start.contains(':')) || link.starts_with("//") {
        return None;
    }
    let site = site(base)?;
    let path = base[site.len()..].split('?').next().unwrap_or_default();
    let path = if path.is_empty() { "/" } else { path };
    let absolute = match link {
        "" => base[site.len()..].to_owned(),
        _ if link.starts_with('/') => link.to_owned(),
        _ if link.starts_with('?') => format!("{path}{link}"),
        _ => format!("{}/{link}", path.rsplit_once('/').map_or("", |(folder, _)| folder)),
    };
    Some(format!("{site}{}", normal(&absolute)))
}

/// The part of a URL that says on which server it is.
pub(crate) fn site(url: &str) -> Option<&str> {
    let host = url.strip_prefix("http://")?;
    let length = host.find(['/', '?']).unwrap_or(host.len());
    Some(&url[.."http://".len() + length])
}

/// Without `.` and `..`.
fn normal(path: &str) -> String {
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    let mut steps = Vec::new();
    let mut is_folder = true;
    for step in path.split('/').skip(1) {
        is_folder = matches!(step, "." | ".." | "");
        match step {
            "." | "" => {}
            ".." => _ = steps.pop(),
            _ => steps.push(step),
        }
    }
    let end = if is_folder && !steps.is_empty() { "/" } else { "" };
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    format!("/{}{end}{query}", steps.join("/"))
}
