//! `image`: the system images that nodes can run.

use std::path::PathBuf;

use proto::v1;
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::output::{Format, Table};
use crate::{Context, value, view};

/// Digits of a digest that tell images apart on a screen.
const SHORT_DIGEST: usize = 12;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// List the images of the head
    List {
        /// How to print them
        #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
        output: Format,
    },
    /// Add an image, after its signature and every digest were checked
    Add(AddArgs),
}

/// Arguments of `image add`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The folder must be on the head's own file system and readable by it. `kraken-image image` makes such folders.

Examples:
  kraken-image image --name demo --from rootfs.tar --keys /var/lib/kraken/keys --out /tmp/demo
  krakenctl image add /tmp/demo
  krakenctl node set @rack1 /image/name=demo /image/state=ACTIVE --wait")]
pub(crate) struct AddArgs {
    /// Folder with manifest.json and its layers
    folder: PathBuf,
    /// How to print the answer
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

/// An image for JSON and YAML. Field names are an interface.
#[derive(Clone, Debug, Serialize)]
struct ImageView {
    name: String,
    digest: String,
    size_bytes: u64,
    security_version: u64,
    added_ms: u64,
}

impl From<v1::Image> for ImageView {
    fn from(image: v1::Image) -> Self {
        Self {
            name: image.name,
            digest: image.digest,
            size_bytes: image.size_bytes,
            security_version: image.security_version,
            added_ms: image.added_ms,
        }
    }
}

pub(crate) async fn run(command: Command, context: &Context) -> Result<Exit, Failure> {
    match command {
        Command::List { output } => list(output, context).await,
        Command::Add(args) => add(args, context).await,
    }
}

async fn list(output: Format, context: &Context) -> Result<Exit, Failure> {
    let mut head = context.head().await?;
    let images = head
        .list_images(v1::ListImagesRequest {})
        .await?
        .into_inner()
        .images;
    let views: Vec<ImageView> = images.into_iter().map(ImageView::from).collect();
    if views.is_empty() && matches!(output, Format::Table | Format::Wide) {
        context.note("no images yet; `krakenctl image add --help` shows how to add one");
    }
    context.screen.list(
        output,
        &views,
        |image| image.name.clone(),
        || table(&views, output),
    )?;
    Ok(Exit::Ok)
}

fn table(images: &[ImageView], format: Format) -> Table {
    let now = view::now_ms();
    let mut table = Table::new(["NAME", "DIGEST", "SIZE", "ADDED", "+SECURITY VERSION"]);
    for image in images {
        let digits = if format == Format::Table {
            SHORT_DIGEST
        } else {
            usize::MAX
        };
        let digest: String = image.digest.chars().take(digits).collect();
        table.row(vec![
            image.name.as_str().into(),
            digest.into(),
            size(image.size_bytes).into(),
            view::ago(image.added_ms, now).into(),
            image.security_version.to_string().into(),
        ]);
    }
    table
}

fn size(bytes: u64) -> String {
    value::size(i64::try_from(bytes).unwrap_or(i64::MAX))
}

async fn add(args: AddArgs, context: &Context) -> Result<Exit, Failure> {
    // The head has another working directory.
    let folder = std::path::absolute(&args.folder)
        .map_err(|error| Failure::usage(format!("{}: {error}", args.folder.display())))?;
    let path = folder
        .to_str()
        .ok_or_else(|| Failure::usage(format!("{} is not UTF-8", folder.display())))?;
    let mut head = context.head().await?;
    let request = v1::AddImageRequest {
        path: path.to_owned(),
    };
    let image = head
        .add_image(request)
        .await?
        .into_inner()
        .image
        .unwrap_or_default();
    let view = ImageView::from(image);
    if args.output == Format::Name {
        context.screen.print(&format!("{}\n", view.name))?;
        return Ok(Exit::Ok);
    }
    context.screen.item(args.output, &view, || {
        format!(
            "added {}, {}, sha256 {}\n",
            view.name,
            size(view.size_bytes),
            view.digest
        )
    })?;
    Ok(Exit::Ok)
}
