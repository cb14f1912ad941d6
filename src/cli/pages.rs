//! Reads a list page by page.

use std::num::NonZeroUsize;

use clap::Args;

use super::failure::Failure;

/// Big enough that a plant's users come in a few calls.
const PAGE_SIZE: usize = 500;

/// How much of a list is wanted.
#[derive(Debug, Args)]
pub(crate) struct LimitArg {
    /// Stop after this many; without it, the list is complete.
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<NonZeroUsize>,
}

/// One page of a list.
#[derive(Debug)]
pub(crate) struct Page<T> {
    pub(crate) items: Vec<T>,
    pub(crate) next_page_token: String,
}

/// Calls `page` with a page size and a page token until the list or the limit is at its end.
pub(crate) async fn read_all<T, E: Into<Failure>>(
    limit: &LimitArg,
    mut page: impl AsyncFnMut(i32, String) -> Result<Page<T>, E>,
) -> Result<Vec<T>, Failure> {
    let limit = limit.limit.map_or(usize::MAX, NonZeroUsize::get);
    let mut items = Vec::new();
    let mut page_token = String::new();
    loop {
        let page_size = i32::try_from(PAGE_SIZE.min(limit - items.len())).unwrap_or(i32::MAX);
        let read = page(page_size, page_token.clone()).await.map_err(Into::into)?;
        items.extend(read.items);
        if read.next_page_token.is_empty() || items.len() >= limit {
            items.truncate(limit);
            return Ok(items);
        }
        if read.next_page_token == page_token {
            return Err(Failure::new("the service keeps sending the same page of the list"));
        }
        page_token = read.next_page_token;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A list of 0..total, and how it is paged: an empty page in between is allowed.
    async fn read(total: i32, limit: Option<usize>) -> (Vec<i32>, Vec<i32>) {
        let mut sizes = Vec::new();
        let limit = LimitArg { limit: limit.and_then(NonZeroUsize::new) };
        let items = read_all(&limit, async |size, token: String| {
            sizes.push(size);
            let start: i32 = token.trim_end_matches('e').parse().unwrap_or(0);
            if start == 500 && !token.ends_with('e') {
                return Ok::<_, Failure>(Page { items: Vec::new(), next_page_token: "500e".to_owned() });
            }
            let end = total.min(start + size);
            Ok(Page { items: (start..end).collect(), next_page_token: if end < total { end.to_string() } else { String::new() } })
        })
        .await;
        (items.unwrap(), sizes)
    }

    #[tokio::test]
    async fn reads_to_the_end() {
        let (items, sizes) = read(1200, None).await;
        assert_eq!(items, (0..1200).collect::<Vec<_>>());
        assert_eq!(sizes, [500, 500, 500, 500]);
        assert_eq!(read(0, None).await.0, Vec::<i32>::new());
    }

    #[tokio::test]
    async fn stops_at_the_limit() {
        assert_eq!(read(1200, Some(3)).await, ((0..3).collect(), vec![3]));
        assert_eq!(read(1200, Some(501)).await.0.len(), 501);
        assert_eq!(read(2, Some(9)).await.0, [0, 1]);
    }

    #[tokio::test]
    async fn does_not_read_one_page_for_ever() {
        let same = async |_, _| Ok::<_, Failure>(Page { items: vec![1], next_page_token: "again".to_owned() });
        assert!(read_all(&LimitArg { limit: None }, same).await.is_err());
    }
}
