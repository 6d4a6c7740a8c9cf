//! What appears on several pages: lists of articles, shelves of products, tags, dates.

use maud::{Markup, html};

use crate::Date;
use crate::content::{Post, Product, escape};
use crate::moon::Moon;

/// A date in words, machine-readable.
#[must_use]
pub fn date(date: Date) -> Markup {
    html! { time datetime=(date) { (date.in_words()) } }
}

/// Links to the pages of the tags.
#[must_use]
pub fn tags(tags: &[String]) -> Markup {
    html! {
        @if !tags.is_empty() {
            ul.tags aria-label="Tags" {
                @for tag in tags { li { a href=(format!("/tags/{}", escape(tag))) { (tag) } } }
            }
        }
    }
}

/// A list of articles under their moons.
#[must_use]
pub fn articles(posts: &[Post]) -> Markup {
    html! {
        ol.articles {
            @for post in posts {
                li {
                    (Moon::on(post.date).draw())
                    h3 { a href=(format!("/posts/{}", escape(&post.id))) { (post.title) } }
                    p { (post.summary) }
                    p.when { (date(post.date)) @if !post.author.is_empty() { ", " (post.author) } }
                }
            }
        }
    }
}

/// A shelf of products with their drawings.
#[must_use]
pub fn shelf(products: &[Product]) -> Markup {
    html! {
        ul.shelf {
            @for product in products {
                li {
                    (drawing(product))
                    h3 { a href=(format!("/products/{}", escape(&product.id))) { (product.title) } }
                    p { (product.summary) }
                    p.price { (product.price) }
                }
            }
        }
    }
}

/// The drawing of a product, from the static files.
#[must_use]
pub fn drawing(product: &Product) -> Markup {
    html! { img src=(format!("/drawings/{}.svg", escape(&product.id))) alt="" width="240" height="180"; }
}
